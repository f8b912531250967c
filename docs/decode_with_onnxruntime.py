"""Decodes a file with g_s in onnxruntime, and the latents by our coder.

    hm-codec export --out transforms
    hm-codec encode photo.png
    python docs/decode_with_onnxruntime.py photo.hmc transforms/g_s.onnx decoded.png

The coder computes in integers and needs the model's entropy networks: in another
runtime they would decode other symbols. The transforms may run anywhere.
"""

import sys

import onnxruntime
import torch

from compressai_hm import Bitstream
from compressai_hm.io.files import write_png
from compressai_hm.zoo import load_model


def main(file: str, g_s: str, out: str) -> None:
    with open(file, "rb") as f:
        stream = Bitstream.read(f.read())
    weights = stream.model, stream.quality, stream.metric
    net = load_model(*weights, pretrained=True).eval()
    strings, steps = [[stream.y], [stream.z]], [stream.steps()]
    y_hat, _ = net.decode_latent(strings, stream.size, steps)
    session = onnxruntime.InferenceSession(g_s)
    (x_hat,) = session.run(None, {"input": y_hat.numpy()})
    height, width = stream.size
    x_hat = torch.from_numpy(x_hat)[..., :height, :width]
    write_png(x_hat.clamp(0, 1), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
