"""Chat templates: what loops or fills the memory is refused before a model is used; all others go through."""

import os
import types

import pytest
from mutations import TEMPLATES

from pipelines import chat_template
from pipelines.chat_template import check_chat_template

COSTLY = TEMPLATES[:9]


def processor(template, of_tokenizer=None):
    return types.SimpleNamespace(chat_template=template, tokenizer=types.SimpleNamespace(chat_template=of_tokenizer))


@pytest.mark.parametrize("template", ["{{ 'a' * 10**10 }}", COSTLY[8]], ids=["memory", "time"])
def test_template_that_costs_without_bound_is_refused(template):
    for given in (processor(template), processor(None, template), processor({"default": "x", "tools": template})):
        with pytest.raises(ValueError, match="A chat template of 'a folder' .* takes more than 2 s or 512 MiB"):
            check_chat_template(given, "'a folder'")


def test_what_is_no_template_is_refused(monkeypatch):
    for given in ({"default": 3}, {"default": None}, "x" * (chat_template.MAX_CHARACTERS + 1)):
        with pytest.raises(ValueError, match="is no template"):
            check_chat_template(processor(given), "'a folder'")


def test_templates_that_are_cheap_pass_though_they_fail_elsewhere():
    """What else is wrong with a template is told when it writes a prompt."""
    real = (
        "{% for m in messages %}{% if m.role not in ['user'] %}{% continue %}{% endif %}{{ m['content'] | tojson }}{% endfor %}"
        "{% generation %}{{ strftime_now('%d') }}{% endgeneration %}"
    )
    for template in (real, "{% if %}", "{{ raise_exception('no') }}", "{{ messages.__class__ }}", "{{ nothing.of.it }}"):
        check_chat_template(processor(template, template), "'a folder'")


def test_each_template_is_tried_once(monkeypatch):
    check_chat_template(processor("once {{ messages }}"), "'a folder'")
    monkeypatch.setattr(chat_template._trial, "are_cheap", lambda *_: pytest.fail("tried again"))
    check_chat_template(processor("once {{ messages }}"), "'another'")


@pytest.mark.parametrize("costs", ["{{ 'a' * 10**10 }}", COSTLY[8]], ids=["memory", "time"])
def test_a_template_that_costs_in_some_conversation_only_is_refused_there(costs):
    given = processor("{% if messages[0].content == 'now' %}" + costs + "{% endif %}fine")
    check_chat_template(given, "'a folder'")
    given.apply_chat_template = lambda messages, **_: "fine"
    asked = [{"role": "user", "content": "hello"}]
    for _ in range(2):
        assert chat_template.apply_chat_template(given, asked) == "fine"
        with pytest.raises(ValueError, match="more than 2 s or 512 MiB for this conversation"):
            chat_template.apply_chat_template(given, [{"role": "user", "content": "now"}])


@pytest.mark.skipif(os.name == "nt", reason="sessions are POSIX's")
def test_ctrl_c_and_a_worker_that_has_ended_condemn_no_template():
    given = processor("fine")
    given.apply_chat_template = lambda messages, **_: "fine"
    asked = [{"role": "user", "content": "hello"}]
    assert chat_template.apply_chat_template(given, asked) == "fine"
    worker = chat_template._trial._process
    assert os.getsid(worker.pid) != os.getsid(0)  # a terminal sends Ctrl-C to its own session
    worker.kill()
    worker.wait()
    assert chat_template.apply_chat_template(given, asked) == "fine"
