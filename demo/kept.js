async () => {
  // The chats of this browser: they survive a reload of the page and a restart of its server. IndexedDB holds them with
  // their pictures; the server is given the one that is open.
  const MOST_CHATS = 30, MOST_BYTES = 300e6, MOST_CHARACTERS = 1e6, EVERY_MS = 4000, PATIENCE_MS = 20000;
  const state = window.sessionStorage; // of this tab, also after a reload
  const server = (path) => new URL(`gradio_api/${path}`, document.baseURI);
  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

  const select = () => document.querySelector("#chats select");
  const say = (word) => {
    let said = document.querySelector("#said");
    if (!said) {
      said = Object.assign(document.createElement("div"), { id: "said", role: "status" });
      said.setAttribute("role", "status");
      said.addEventListener("click", () => (said.textContent = ""));
      document.body.append(said);
    }
    said.textContent = word ? (select()?.dataset[word] ?? "") : "";
  };

  const kept = {
    say,

    async stores(mode) {
      this.base ??= await (() => {
        const opening = indexedDB.open("multimodal-vcla", 1);
        opening.onupgradeneeded = () => {
          opening.result.createObjectStore("chats", { keyPath: "id" });
          opening.result.createObjectStore("pictures");
        };
        return done(opening);
      })();
      const work = this.base.transaction(["chats", "pictures"], mode);
      return [work.objectStore("chats"), work.objectStore("pictures")];
    },

    async list() {
      const [chats] = await this.stores("readonly");
      return (await done(chats.getAll())).sort((one, other) => other.time - one.time);
    },

    // What the server is given: the chat, its pictures, and nothing for its session.
    async open() {
      const id = state.chat ??= `${Date.now()}-${Math.random()}`;
      const about = { id, turns: [], language: localStorage.language ?? null, model: this.model(), draft: state.draft ?? "" };
      delete state.draft;
      const isFirst = !this.timer, files = [], drafted = [];
      try {
        const [chats, pictures] = await this.stores("readonly");
        const chat = await done(chats.get(id));
        if (chat) about.turns = chat.turns;
        const blobs = await Promise.all(about.turns.flatMap((turn) => turn.pictures).map((key) => done(pictures.get(key))));
        for (const blob of blobs) files.push(blob ? await this.upload(blob, "picture") : null);
        const draft = isFirst && (await done((await this.stores("readonly"))[1].get(this.drafts())));
        for (const { blob, name } of draft?.pictures ?? []) drafted.push(await this.upload(blob, name));
      } catch (error) {
        console.warn(error);
        say("unkept");
      }
      // A picture that is lost is told by the server, which counts them.
      about.turns = about.turns.map((turn) => ({ ...turn, pictures: turn.pictures.length }));
      about.missing = files.flatMap((file, index) => (file ? [] : [index]));
      about.drafted = drafted.length;
      this.watch();
      return [about, [...files.filter(Boolean), ...drafted], null];
    },

    async upload(blob, name) {
      const form = new FormData();
      form.append("files", blob, name);
      const answer = await fetch(server("upload"), { method: "POST", body: form });
      if (!answer.ok) throw new Error(`upload: ${answer.status}`);
      return { path: (await answer.json())[0], orig_name: name, meta: { _type: "gradio.FileData" } };
    },

    drafts: () => `draft ${(state.tab ??= `${Math.random()}`)}`,

    // The pictures of the message that is being written: its words are kept when the page goes.
    drafted: "[]",
    async draft() {
      const sources = [...document.querySelectorAll("#box .thumbnail-item img")].map((image) => image.src);
      const now = JSON.stringify(sources);
      if (now === this.drafted) return;
      this.drafted = now;
      try {
        const picture = async (source) => {
          const answer = await fetch(source);
          if (!answer.ok) throw new Error(`${source}: ${answer.status}`);
          return { blob: await answer.blob(), name: decodeURIComponent(source.split("/").at(-1)) };
        };
        const made = await Promise.all(sources.map(picture));
        if (now !== this.drafted) return;
        const [, pictures] = await this.stores("readwrite");
        if (made.length) pictures.put({ time: Date.now(), pictures: made }, this.drafts());
        else pictures.delete(this.drafts());
      } catch (error) {
        console.warn(error); // a message that is not sent yet: attached again if the worst comes
      }
    },

    // One after the other. While an answer is written only what there is of it comes, with every token: the newest is kept.
    save(chat) {
      if (!chat?.id) return;
      const isPart = "so_far" in chat;
      if (isPart) this.part = chat;
      this.saving = (this.saving ?? Promise.resolve()).then(() => (isPart ? this.savePart() : this.saveAll(chat)));
    },

    async savePart() {
      const part = this.part;
      this.part = null;
      if (!part) return;
      try {
        const [chats] = await this.stores("readwrite");
        const chat = await done(chats.get(part.id));
        if (!chat?.turns.length) return;
        Object.assign(chat.turns.at(-1), { answer: part.so_far, model: part.model });
        await done(chats.put(chat));
      } catch (error) {
        console.warn(error); // the whole chat is still to come, and would say it
      }
    },

    async saveAll(chat) {
      try {
        const turns = chat.turns.map((turn) => ({ ...turn, pictures: turn.pictures.map((picture) => picture.key) }));
        if (JSON.stringify(turns).length > MOST_CHARACTERS) return say("unkept");
        const known = new Set(await done((await this.stores("readonly"))[1].getAllKeys()));
        const fetched = [];
        for (const { key, url } of chat.turns.flatMap((turn) => turn.pictures)) {
          if (known.has(key)) continue;
          known.add(key);
          const answer = await fetch(url);
          if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
          fetched.push([key, await answer.blob()]);
        }
        const [chats, pictures] = await this.stores("readwrite");
        fetched.forEach(([key, blob]) => pictures.put(blob, key));
        await done(turns.length ? chats.put({ id: chat.id, time: Date.now(), turns }) : chats.delete(chat.id));
        await this.forget();
        await this.fill();
      } catch (error) {
        console.warn(error);
        say("unkept");
      }
    },

    // The oldest chats, pictures of none, and messages that were not sent for a day.
    async forget() {
      const list = await this.list();
      const [chats, pictures] = await this.stores("readwrite");
      const [keys, blobs] = await Promise.all([done(pictures.getAllKeys()), done(pictures.getAll())]);
      const sizes = new Map(keys.map((key, index) => [key, blobs[index].size]));
      const needed = new Set();
      let bytes = 0;
      list.forEach((chat, index) => {
        const own = new Set(chat.turns.flatMap((turn) => turn.pictures).filter((key) => !needed.has(key)));
        own.forEach((key) => (bytes += sizes.get(key) ?? 0));
        if (index > 0 && (index >= MOST_CHATS || bytes > MOST_BYTES)) chats.delete(chat.id);
        else own.forEach((key) => needed.add(key));
      });
      const isNew = (kept) => Date.now() - kept.time < 86400e3;
      keys.filter((key, index) => !needed.has(key) && !isNew(blobs[index])).forEach((key) => pictures.delete(key));
    },

    async fill() {
      const list = await this.list().catch(() => []);
      const box = select();
      if (!box) return;
      const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
      const title = (chat) => chat.turns[0].question.slice(0, 40);
      box.replaceChildren(option("", box.dataset.fresh), ...list.map((chat) => option(chat.id, title(chat))));
      box.value = list.some((chat) => chat.id === state.chat) ? state.chat : "";
      document.documentElement.lang = box.dataset.language;
      const question = document.querySelector("#box textarea");
      question?.setAttribute("aria-label", question.placeholder);
    },

    async drop() {
      const [chats] = await this.stores("readwrite");
      chats.delete(state.chat);
    },

    choose(id) {
      state.chat = id || `${Date.now()}-${Math.random()}`;
      document.querySelector("#open").click();
    },

    model: () => state.model ?? null,

    pick(model) {
      state.model = model;
      document.querySelector("#pick").click();
    },

    speak(language) {
      localStorage.language = language;
      return this.fill();
    },

    // A server that was restarted knows no chat: the page is loaded anew, and gives it this one.
    async watch() {
      const app = async () => (await (await fetch(server("app_id"), { signal: AbortSignal.timeout(PATIENCE_MS) })).json()).app_id;
      let isAway = false;
      const look = async () => {
        try {
          const now = await app();
          if (isAway) say();
          isAway = false;
          if (now !== this.app) {
            state.isBack = "1";
            location.reload();
          }
        } catch {
          isAway = true;
          say("away");
        }
      };
      if (this.timer) return;
      this.timer = setInterval(look, EVERY_MS);
      this.app = window.gradio_config?.app_id ?? (await app());
      if (state.app && state.app !== `${this.app}`) state.isBack = "1";
      state.app = this.app;
    },

    begin() {
      this.fill();
      if (state.isBack) say("back");
      delete state.isBack;
    },
  };

  window.addEventListener("pagehide", () => (state.draft = document.querySelector("#box textarea")?.value ?? ""));
  document.addEventListener("change", (event) => {
    if (event.target === select()) kept.choose(event.target.value);
    if (event.target.matches?.("#offers input")) kept.pick(event.target.value);
  });
  new MutationObserver(() => kept.draft()).observe(document.body, { subtree: true, childList: true, attributeFilter: ["src"] });
  window.kept = kept;
  return kept.open();
}
