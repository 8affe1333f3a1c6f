"""The rooms behind `install.py`.

    command_line    flags, mistakes, exit status          verbs           what each verb does
    environment     .venv: made, stamped, kept            interpreters    which Python, and whether it will do
    pip             pip, its progress, why it failed      pytorch         the right build of PyTorch
    webui           a web UI and where its things are     webui_python    its Python and its packages
    put             the plugin goes in                    take_out        and out again
    manifest        what was put in                       settings_yaml   switched on at every start
    webui_report    what the doctor says of a web UI      project         this checkout and its facts
    files, processes, lock, words                         what the others share

Standard library only, nothing of ours, and nothing that Python 3.8 cannot run: the web UI's machine may have no newer one
to start this with, and a Python that is too old for the project shall get a sentence. What does not belong here: anything
that knows about models or pictures. That is in `pipelines/`.
"""
