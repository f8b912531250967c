"""Preprocessing for the codec: RGB in [0, 1] at the pictures' original size."""

import torch
import torch.nn.functional as F
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor

from ...checks import check_pictures


@MODELS.register_module()
class HumanMachineDataPreprocessor(BaseDataPreprocessor):
    """Collates BGR pictures of different sizes, 0 to 255, to one RGB batch in [0, 1].

    Smaller pictures of a batch are padded at the bottom and right by replication; the
    detector knows each one's size from ``img_shape``. The wrapped detector's resize,
    normalization and padding follow after decoding.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collates a batch.

        Args:
            data: ``inputs`` (list of ``(3, H, W)`` uint8, or one ``(N, 3, H, W)``) and
                ``data_samples``.
            training: Not used, because there are no augmentations. Defaults to False.

        Returns:
            ``inputs``, ``(N, 3, H, W)`` float32 in [0, 1], and ``data_samples``.

        Raises:
            ValueError: If a pipeline resized or normalized the pictures.
        """
        data = self.cast_data(data)
        samples = data.get("data_samples")
        pictures = [picture.flip(0).float() / 255 for picture in data["inputs"]]
        height = max(picture.shape[1] for picture in pictures)
        width = max(picture.shape[2] for picture in pictures)
        for i, picture in enumerate(pictures):
            pad = (0, width - picture.shape[2], 0, height - picture.shape[1])
            if any(pad):
                pictures[i] = F.pad(picture[None], pad, mode="replicate")[0]
        for sample in samples or ():
            factor = sample.metainfo.get("scale_factor", (1.0, 1.0))
            if tuple(factor) != (1.0, 1.0):
                raise ValueError(
                    f"the pipeline resized {sample.metainfo.get('img_path')} by "
                    f"{tuple(factor)}. Pictures are coded at their original size and "
                    "resized after decoding: leave Resize out of the pipeline, and "
                    "give the detector's size as model.resize"
                )
        if samples:
            samplelist_boxtype2tensor(samples)
        inputs = torch.stack(pictures)
        if any(picture.dtype != torch.uint8 for picture in data["inputs"]):
            check_pictures(inputs)
        return {"inputs": inputs, "data_samples": samples}
