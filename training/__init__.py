"""How weights are made. `python -m training <verb> --help`."""
