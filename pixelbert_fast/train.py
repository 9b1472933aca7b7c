"""What `deepspeed pixelbert_fast/train.py` and `python pixelbert_fast/train.py` run; see `training.cli`."""

import os
import sys

# Started by path, Python puts this file's folder first on the search path, where the package's own modules
# would hide others of the same name. The repository takes its place before anything else is imported.
_HERE = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0]) == _HERE:
    sys.path[0] = os.path.dirname(_HERE)

if __name__ == "__main__":
    from pixelbert_fast.commands.report import report_run
    from pixelbert_fast.training.cli import main

    sys.exit(main(reporter=report_run))
