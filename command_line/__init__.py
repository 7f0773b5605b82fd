"""What people and supervisors call: `python pipeline.py COMMAND`. `main.py` lists the commands."""
