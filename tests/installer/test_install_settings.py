"""Switched on at every start: settings.yaml and CMD_FLAGS.txt of a web UI."""

import os

import pytest
from webui_tree import fails, snapshot, write

from installer import settings_yaml
from installer.command_line import main
from installer.settings_yaml import with_extension
from installer.webui import WebUI

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and the stand-in for Python need a Unix")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "default_extensions:\n- multimodal_vcla\n"),
        ("mode: chat", "mode: chat\ndefault_extensions:\n- multimodal_vcla\n"),
        ("default_extensions:\n- a\nseed: 1\n", "default_extensions:\n- multimodal_vcla\n- a\nseed: 1\n"),
        ("default_extensions:  # mine\n  # two\n  - a\n", "default_extensions:  # mine\n  - multimodal_vcla\n  # two\n  - a\n"),
        ("default_extensions: []\n", "default_extensions: [multimodal_vcla]\n"),
        ("default_extensions: [a, 'b']\n", "default_extensions: [multimodal_vcla, a, 'b']\n"),
        ("default_extensions: null\nx: 1\n", "default_extensions:\n- multimodal_vcla\nx: 1\n"),
        ("default_extensions:\n- multimodal_vcla_2\n", "default_extensions:\n- multimodal_vcla\n- multimodal_vcla_2\n"),
    ],
)
def test_settings_keep_all_else(checkout, before, after):
    yaml = pytest.importorskip("yaml")
    assert with_extension(before, True) == after
    assert with_extension(after, True) is None
    assert yaml.safe_load(after)["default_extensions"][0] == "multimodal_vcla"
    undone = with_extension(after, False)
    assert (yaml.safe_load(undone) or {}).get("default_extensions") == (
        (yaml.safe_load(before) or {}).get("default_extensions") or ([] if "[]" in before else None)
    )
    assert with_extension(undone, False) is None


def test_list_that_is_not_understood_is_not_touched(checkout, web, capsys):
    write(web / "user_data/settings.yaml", "default_extensions: [a,\n  b]\n")
    before = snapshot(web)
    assert "does not understand: '[a,'" in fails(capsys, "webui", web, "--enable")
    assert snapshot(web) == before
    assert main(["webui", str(web)]) == 0


@pytest.mark.parametrize("flags", ["--extensions gallery multimodal_vcla --api", "--api \\\n--extensions multimodal_vcla"])
def test_flags_that_switch_it_on_are_enough(checkout, web, flags, capsys):
    write(web / "user_data/CMD_FLAGS.txt", f"# flags\n{flags}\n")
    assert main(["webui", str(web), "--enable"]) == 0
    assert not (web / "user_data/settings.yaml").exists()
    assert "Start the web UI and load" in capsys.readouterr().out


def test_flags_of_a_comment_do_not_count(checkout, web):
    write(web / "user_data/CMD_FLAGS.txt", "# --extensions multimodal_vcla\n")
    assert settings_yaml.enabled_in(WebUI(str(web))) is None


def test_line_ends_and_letters_of_any_encoding_stay(checkout, web):
    settings = web / "user_data" / "settings.yaml"
    before = "name: caf\xe9\r\ndefault_extensions:\r\n- a\r\n".encode("latin-1")
    settings.write_bytes(before)
    assert main(["webui", str(web), "--enable"]) == 0
    assert settings.read_bytes() == before.replace(b"- a", b"- multimodal_vcla\r\n- a")
    assert main(["uninstall", str(web)]) == 0
    assert settings.read_bytes() == before


def test_what_the_user_switched_on_stays_on_and_is_told(checkout, web, capsys):
    write(web / "user_data/CMD_FLAGS.txt", "--extensions multimodal_vcla\n")
    main(["webui", str(web)])
    assert main(["uninstall", str(web)]) == 0
    assert "left: user_data/CMD_FLAGS.txt still switches it on: take its name out" in capsys.readouterr().out
