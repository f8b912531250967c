"""``python -m compressai_hm.eval_model``: CompressAI's tool with the HM models."""

import sys

from compressai.utils.eval_model import __main__ as compressai_eval

BPP = """
bpp counts the streams only, without a header. CompressAI pads the pictures with black
to multiples of 64. With --entropy-estimation bpp is the model's estimate, some bytes
less than the streams, and pictures are padded by replication. tools/codec.py pads by
replication too, and counts whole files, with a header of at most 24 bytes.
"""


def main(argv: list[str]) -> None:
    """Runs CompressAI's tool, and adds to its help how it counts bits.

    Args:
        argv: The command line's arguments.
    """
    try:
        compressai_eval.main(argv)
    finally:
        if {"-h", "--help"} & set(argv):
            print(BPP)


if __name__ == "__main__":
    main(sys.argv[1:])
