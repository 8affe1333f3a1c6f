"""How the demo model is made: one YAML file per stage for `python -m training train`, and what stage 0 starts from."""
