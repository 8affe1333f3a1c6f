"""install.py webui and uninstall: into made-up web UIs and out again, updates, what stands in the way."""

import json
import os
import shutil

import pytest
from webui_tree import fails, make_model, make_webui, snapshot, update_project, write

from installer import project
from installer.command_line import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")


# --- in and out


def test_plugin_and_pipelines_land_in_the_extensions_own_folder(checkout, web, capsys):
    before = snapshot(web)
    assert main(["webui", str(web)]) == 0
    place = "user_data/extensions/multimodal_vcla"
    files = {name for name, content in snapshot(web).items() if name not in before and content is not None}
    inside = ["script.py", "hooks.py", "presets/VisualCLA.yaml", "instruction-templates/VisualCLA.yaml"]
    inside += ["pipelines/__init__.py", "pipelines/visualcla/pipeline.py"]
    assert files == {
        *(f"{place}/{name}" for name in inside),
        f"{place}.json",
        "user_data/presets/VisualCLA.yaml",
        "user_data/instruction-templates/VisualCLA.yaml",
    }
    output = capsys.readouterr().out
    assert "nothing is missing" in output and "Start the web UI with --extensions multimodal_vcla" in output
    assert "of an unknown version" in output and "tested with v4.9 and v4.7" in output
    assert f"uninstall '{web}'" in output


@pytest.mark.parametrize("flags", [[], ["--enable"], ["--system"], ["--link"], ["--model"], ["--enable", "--link", "--model"]])
@pytest.mark.parametrize("tree", ["plain", "linked user_data", "user_data elsewhere", "bare user_data"])
def test_uninstall_leaves_every_byte_as_it_was(checkout, web, tmp_path, flags, tree):
    everywhere = [] if tree != "user_data elsewhere" else ["--user-data-dir", str(tmp_path / "elsewhere")]
    if tree in ("linked user_data", "user_data elsewhere"):
        (web / "user_data").rename(tmp_path / "elsewhere")
    if tree == "linked user_data":
        (web / "user_data").symlink_to(tmp_path / "elsewhere")
    if tree == "bare user_data":
        shutil.rmtree(web / "user_data")
        write(web / "user_data" / "settings.yaml", "mode: chat")
    model = make_model(tmp_path / "模型 7b")
    arguments = [word for flag in flags for word in ([flag, str(model)] if flag == "--model" else [flag])]
    before = snapshot(tmp_path)
    for _ in range(2):  # repeating changes nothing
        assert main(["webui", str(web), *everywhere, *arguments]) == 0
    write(tmp_path / "x" / "y", "")  # the snapshots see what they should see
    assert snapshot(tmp_path) != before
    shutil.rmtree(tmp_path / "x")
    user_data = tmp_path / "elsewhere" if everywhere else web / "user_data"
    if "--model" in flags:
        assert (user_data / "models" / "模型 7b" / "config.json").is_file()
    if "--enable" in flags:
        assert "- multimodal_vcla" in (user_data / "settings.yaml").read_text()
    base = web if "--system" in flags else user_data
    assert (base / "extensions" / "multimodal_vcla" / "script.py").is_file()
    assert (base / "extensions" / "multimodal_vcla").is_symlink() == ("--link" in flags)
    assert main(["uninstall", str(web), *everywhere]) == 0
    assert snapshot(tmp_path) == before


def test_dry_run_changes_nothing(checkout, web, tmp_path, capsys):
    model = make_model(tmp_path / "seeing7b")
    before = snapshot(tmp_path)
    assert main(["webui", str(web), "--dry-run", "--enable", "--model", str(model)]) == 0
    assert snapshot(tmp_path) == before
    output = capsys.readouterr().out
    for words in ("presets/VisualCLA.yaml", "models/seeing7b -> ", "user_data/settings.yaml", "Nothing was changed"):
        assert words in output


def test_byte_code_of_a_run_goes_too(checkout, web):
    before = snapshot(web)
    main(["webui", str(web)])
    write(web / "user_data/extensions/multimodal_vcla/pipelines/__pycache__/base.cpython-313.pyc", "")
    assert main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before


def test_uninstall_leaves_what_the_user_changed_and_says_so(checkout, web, capsys):
    main(["webui", str(web), "--enable"])
    extension = web / "user_data/extensions/multimodal_vcla"
    write(extension / "hooks.py", "# mine\n")
    write(extension / "pipelines" / "llava" / "pipelines.py", "# dropped in\n")
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
    write(web / "user_data/settings.yaml", "mode: chat\ndefault_extensions:\n- gallery\n- multimodal_vcla\nseed: 3\n")
    capsys.readouterr()
    assert main(["uninstall", str(web)]) == 0
    output = capsys.readouterr().out
    left = [name for name in snapshot(extension) if not (extension / name).is_dir()]
    assert sorted(left) == ["hooks.py", "pipelines/llava/pipelines.py"]
    assert (web / "user_data/settings.yaml").read_text() == "mode: chat\ndefault_extensions:\n- gallery\nseed: 3\n"
    assert (web / "user_data/presets/VisualCLA.yaml").read_text() == "temperature: 1\n"
    for words in ("hooks.py was changed", "presets/VisualCLA.yaml was changed", "llava/pipelines.py was put there by somebody"):
        assert words in output


def test_model_link_that_became_something_else_stays(checkout, web, tmp_path, capsys):
    main(["webui", str(web), "--model", str(make_model(tmp_path / "seeing7b"))])
    (web / "user_data/models/seeing7b").unlink()
    write(web / "user_data/models/seeing7b/config.json", "{}")
    assert main(["uninstall", str(web)]) == 0
    assert "models/seeing7b is no link to" in capsys.readouterr().out
    assert (web / "user_data/models/seeing7b/config.json").is_file()


# --- updates


def test_second_install_brings_an_older_one_up_to_date(checkout, web):
    before = snapshot(web)
    main(["webui", str(web), "--enable"])
    update_project(checkout)
    assert main(["webui", str(web)]) == 0
    updated = snapshot(web)
    extension = "user_data/extensions/multimodal_vcla"
    assert f"{extension}/hooks.py" not in updated and f"{extension}/better_hooks.py" in updated
    assert updated["user_data/presets/VisualCLA.yaml"][0] == b"temperature: 0.7\n"
    manifest = json.loads(updated[f"{extension}.json"][0])
    assert (manifest["version"], manifest["unfinished"]) == ("0.2.0", False)
    assert main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before


def test_update_keeps_what_the_user_has_in_there(checkout, web, capsys):
    main(["webui", str(web)])
    extension = web / "user_data/extensions/multimodal_vcla"
    for version in ("mine", "mine again"):
        write(extension / "script.py", version)
        write(extension / "pipelines" / "llava" / "weights.bin", "large")
        write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
        update_project(checkout) if version == "mine" else None
        assert main(["webui", str(web)]) == 0
    assert (extension / "script.py").read_text() == "params = {'new': 1}\n"
    assert (extension / "script.py.yours").read_text() == "mine"
    assert (extension / "script.py.yours.yours").read_text() == "mine again"
    assert (extension / "pipelines" / "llava" / "weights.bin").read_text() == "large"
    assert (web / "user_data/presets/VisualCLA.yaml").read_text() == "temperature: 1\n"
    output = capsys.readouterr().out
    assert "your version is kept as script.py.yours" in output and "stays as it is" in output


def test_users_own_files_of_the_same_name_are_theirs(checkout, web):
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 0.5\n")  # the same content, but there before us
    write(web / "user_data/instruction-templates/VisualCLA.yaml", "other")
    before = snapshot(web)
    main(["webui", str(web)])
    main(["uninstall", str(web)])
    after = snapshot(web)
    assert after["user_data/instruction-templates/VisualCLA.yaml"] == before["user_data/instruction-templates/VisualCLA.yaml"]
    assert after == before


@pytest.mark.parametrize("flags", [("--link",), ()])
def test_copy_becomes_a_link_and_back(checkout, web, flags):
    before = snapshot(web)
    main(["webui", str(web), *({"--link"} - set(flags))])
    assert main(["webui", str(web), *flags]) == 0
    assert (web / "user_data/extensions/multimodal_vcla").is_symlink() == bool(flags)
    source = snapshot(checkout)
    assert main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before and snapshot(checkout) == source


def test_link_follows_a_checkout_that_was_moved(checkout, web, monkeypatch):
    before = snapshot(web)
    main(["webui", str(web), "--link"])
    moved = checkout.rename(checkout.with_name("moved"))
    monkeypatch.setattr(project, "ROOT", moved)
    assert main(["webui", str(web), "--link"]) == 0
    assert (web / "user_data/extensions/multimodal_vcla/script.py").is_file()
    assert main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before


def test_links_of_the_user_stay_links(checkout, web, tmp_path):
    """In the extension's folder and in the place of settings.yaml."""
    write(tmp_path / "dotfiles" / "settings.yaml", "mode: chat\n")
    (web / "user_data/settings.yaml").symlink_to(tmp_path / "dotfiles" / "settings.yaml")
    before = snapshot(web)
    main(["webui", str(web), "--enable"])
    llava = web / "user_data/extensions/multimodal_vcla/pipelines/llava"
    llava.symlink_to(tmp_path / "dotfiles", target_is_directory=True)
    update_project(checkout)
    assert main(["webui", str(web)]) == 0
    assert llava.is_symlink() and (llava / "settings.yaml").is_file()
    llava.unlink()
    assert main(["uninstall", str(web)]) == 0
    assert snapshot(web) == before
    assert (tmp_path / "dotfiles" / "settings.yaml").read_text() == "mode: chat\n"


# --- what stands in the way


def test_another_extension_of_the_same_name_is_left_alone(checkout, web, capsys):
    script = write(web / "user_data/extensions/multimodal_vcla/script.py", "# not ours\n")
    before = snapshot(web)
    for flags in ([], ["--link"], ["--system"]):  # in user_data it would hide ours in extensions/
        assert "was not put there by install.py" in fails(capsys, "webui", web, *flags)
    assert "put there by hand: delete it" in fails(capsys, "uninstall", web)
    assert snapshot(web) == before and script.is_file()
    shutil.move(web / "user_data/extensions/multimodal_vcla", web / "extensions")
    assert "was not put there by install.py" in fails(capsys, "webui", web, "--system")
    assert main(["webui", str(web)]) == 0
    assert "extensions/multimodal_vcla is there too; the web UI takes the one in user_data" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["hooks.py", "mine.py"])
def test_link_does_not_replace_what_the_user_has_in_there(checkout, web, capsys, name):
    main(["webui", str(web)])
    write(web / "user_data/extensions/multimodal_vcla" / name, "# mine\n")
    before = snapshot(web)
    assert f"holds files of yours, such as '{name}'" in fails(capsys, "webui", web, "--link")
    assert snapshot(web) == before


def test_link_that_the_user_led_elsewhere_is_left_alone(checkout, web, tmp_path, capsys):
    main(["webui", str(web), "--link"])
    link = web / "user_data/extensions/multimodal_vcla"
    link.unlink()
    link.symlink_to(tmp_path)
    for flags in ([], ["--link"]):
        assert "was not put there by install.py" in fails(capsys, "webui", web, *flags)
    assert main(["uninstall", str(web)]) == 0
    assert "is no link to" in capsys.readouterr().out and os.readlink(link) == str(tmp_path)


def test_extension_that_came_to_hide_ours_is_told(checkout, web, capsys):
    main(["webui", str(web), "--system"])
    write(web / "user_data/extensions/multimodal_vcla/script.py", "# not ours\n")
    assert "was not put there by install.py" in fails(capsys, "webui", web, "--system")


@pytest.mark.parametrize("text", ["", "{}}", "[]", '{"files": {}, "surprise": 1}'])
@pytest.mark.parametrize("verb", ["webui", "uninstall", "doctor"])
def test_damaged_manifest_is_one_line(checkout, web, capsys, text, verb):
    write(web / "user_data/extensions/multimodal_vcla.json", text)
    error = fails(capsys, verb, web, status=1)
    assert "is damaged" in error and "Delete it and user_data/extensions/multimodal_vcla, and install again" in error


def test_other_place_is_told(checkout, web, capsys):
    main(["webui", str(web)])
    error = fails(capsys, "webui", web, "--system")
    assert "It is installed in user_data/extensions/multimodal_vcla. Take it out first: python " in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["webui"], "arguments are required: DIR"),
        (["webui", "{tmp}"], "is no text-generation-webui: server.py and modules/extensions.py are not there"),
        (["webui", "{tmp}/outer"], "Did you mean"),
        (["webui", "{tmp}/old"], "has no folder 'user_data'. It is too old"),
        (["webui", "{web}", "--user-data-dir", "{tmp}/none"], "has no folder 'none'"),
        (["webui", "{web}", "--modle", "x"], "unrecognized arguments: --modle x"),
        (["webui", "{web}", "--model", "{tmp}"], "is no model folder: it has no config.json"),
        (["webui", "{web}", "--python", "no-such-python"], "'no-such-python' is not a program"),
        (["webui", "{tmp}/nopython"], "The web UI's Python was not found (looked in installer_files/env"),
        (["uninstall", "{web}"], "Nothing in"),
        (["doctor", "{tmp}/none"], "is not a folder"),
    ],
)
def test_mistakes_are_one_line(checkout, web, tmp_path, capsys, arguments, words):
    make_webui(tmp_path / "outer" / "app")
    shutil.rmtree(make_webui(tmp_path / "old") / "user_data")
    shutil.rmtree(make_webui(tmp_path / "nopython") / "installer_files")
    before = snapshot(tmp_path)
    assert words in fails(capsys, *(word.format(web=web, tmp=tmp_path) for word in arguments))
    assert snapshot(tmp_path) == before


def test_name_of_a_model_that_is_taken(checkout, web, tmp_path, capsys):
    write(web / "user_data/models/seeing7b/config.json", "{}")
    assert "is another model" in fails(capsys, "webui", web, "--model", make_model(tmp_path / "seeing7b"))
    assert main(["webui", str(web), "--model", str(web / "user_data/models/seeing7b")]) == 0  # there already


def test_a_dry_run_of_uninstall_says_what_goes_and_changes_nothing(checkout, web, tmp_path, capsys):
    main(["webui", str(web), "--enable", "--model", str(make_model(tmp_path / "seeing7b"))])
    write(web / "user_data/presets/VisualCLA.yaml", "temperature: 1\n")
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert main(["uninstall", str(web), "--dry-run"]) == 0
    assert snapshot(tmp_path) == before
    output = capsys.readouterr().out
    for words in ("multimodal_vcla (", "models/seeing7b", "user_data/settings.yaml", "VisualCLA.yaml was changed", "--dry-run"):
        assert words in output
    assert main(["uninstall", str(web)]) == 0


def test_a_model_that_is_called_model_is_linked_under_a_name_that_tells_it_apart(checkout, web, tmp_path):
    main(["webui", str(web), "--model", str(make_model(tmp_path / "demo" / "model"))])
    assert (web / "user_data/models/demo-model/config.json").is_file()
