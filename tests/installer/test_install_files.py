"""Files and links of the installer, as the system at hand has them: on Windows a link may be a junction."""

import os

import pytest

from installer import files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "模型 a").mkdir()
    (tmp_path / "模型 a" / "config.json").write_text("{}")
    return tmp_path / "模型 a"


def test_link_is_known_and_removed_without_what_it_leads_to(tmp_path, folder):
    link = tmp_path / "deep" / "er" / "link"
    files.make_link(link, str(folder))
    assert (link / "config.json").read_text() == "{}"
    assert files.is_link_to(link, str(folder)) and not files.is_link_to(link, str(tmp_path))
    files.remove_empty(tmp_path / "deep")
    assert files.linked_folder(link) == str(folder)  # no empty folder of ours
    files.remove(link)
    assert not os.path.lexists(link) and (folder / "config.json").is_file()


def test_link_is_known_after_its_folder_is_gone(tmp_path, folder):
    files.make_link(tmp_path / "link", str(folder))
    files.remove(folder)
    assert not folder.exists() and files.is_link_to(tmp_path / "link", str(folder))
    files.remove(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link")


def test_folders_and_files_are_no_links(tmp_path, folder):
    for path in (folder, folder / "config.json", tmp_path / "absent"):
        assert files.linked_folder(path) is None and not files.is_link_to(path, "")


def test_names_have_links_and_no_byte_code(tmp_path, folder):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "inside").touch()
    files.make_link(folder / "sub" / "link", str(tmp_path / "other"))
    assert files.names_in(folder)[:2] == ["config.json", "sub/link"]


def test_copy_keeps_links_and_contents(tmp_path, folder):
    files.make_link(tmp_path / "link", str(folder))
    files.copy(tmp_path / "link", tmp_path / "new" / "link")
    files.copy(folder / "config.json", tmp_path / "new" / "sub" / "config.json")
    assert files.is_link_to(tmp_path / "new" / "link", str(folder))
    assert (tmp_path / "new" / "sub" / "config.json").read_text() == "{}"


def test_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.txt"
    files.write(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            files.write(path, b"new")
    assert path.read_bytes() == b"old"
    files.discard_draft(path)
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]
