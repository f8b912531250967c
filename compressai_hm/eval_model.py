"""``python -m compressai_hm.eval_model``: CompressAI's, with the HM models' names."""

import sys

from compressai.utils.eval_model import __main__ as compressai_eval

BPP = """
bpp is of streams only, of pictures that CompressAI pads with black to multiples of 64;
with --entropy-estimation it is the model's estimate, some bytes less than real streams,
of pictures padded by replication. tools/codec.py pads so, too, and counts whole files,
with a header of 32 bytes.
"""


def main(argv: list[str]) -> None:
    try:
        compressai_eval.main(argv)
    finally:
        if {"-h", "--help"} & set(argv):
            print(BPP)


if __name__ == "__main__":
    main(sys.argv[1:])
