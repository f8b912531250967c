"""``python -m compressai_hm.eval_model``: CompressAI's, with the HM models' names."""

import sys

from compressai.utils.eval_model.__main__ import main

if __name__ == "__main__":
    main(sys.argv[1:])
