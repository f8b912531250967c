"""COCO's mean average precision, for any weighting of the pictures.

The value equals pycocotools' (101 recalls, IoU 0.5 to 0.95, 100 detections a picture).
Weights make a bootstrap over pictures cheap: a picture sampled k times counts k times.
"""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class Matches:
    """The detections that match annotations, picture by picture.

    Args:
        truth: Annotations.
        detections: Detections in COCO's results format.
        pictures: Ids of the pictures, in the order of the weights.
        categories: Ids of the categories that count.
        iou_type: "bbox" or "segm".
        sizes: The objects that count by COCO's areas: "small" (under 32x32 pixels),
            "medium" (under 96x96), "large" or "all".
    """

    def __init__(
        self,
        truth: COCO,
        detections: list[dict],
        pictures: list[int],
        categories: list[int],
        iou_type: str = "bbox",
        sizes: str = "all",
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            results = truth.loadRes(detections) if detections else COCO()
            evaluation = COCOeval(truth, results, iou_type)
            params = evaluation.params
            params.imgIds, params.catIds = pictures, categories
            low, high = params.areaRng[params.areaRngLbl.index(sizes)]
            params.areaRng, params.areaRngLbl = [[low, high]], [sizes]
            if detections:
                evaluation.evaluate()
        params = evaluation.params
        self.recalls = params.recThrs
        order = params.imgIds  # pycocotools sorts them
        place = {picture: i for i, picture in enumerate(pictures)}
        self.num_pictures = len(pictures)
        self.categories = []
        for k, category in enumerate(params.catIds):
            relevant = np.zeros(len(pictures))
            for picture in pictures:
                ids = truth.getAnnIds(imgIds=[picture], catIds=[category])
                relevant[place[picture]] = sum(
                    not a.get("iscrowd") and low <= a["area"] <= high
                    for a in truth.loadAnns(ids)
                )
            if not relevant.any():
                continue
            records = [
                (place[order[i]], e)
                for i in range(len(order))
                if detections and (e := evaluation.evalImgs[k * len(order) + i])
            ]
            self.categories.append(_Category(relevant, records, len(params.iouThrs)))

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Computes mAP under each weighting.

        Args:
            weights: How often each picture counts, ``(R, N)``. Defaults to one
                weighting in which each picture counts once.

        Returns:
            ``(R,)``, in [0, 1]; nan where no category has an object.
        """
        if weights is None:
            weights = np.ones((1, self.num_pictures))
        total, count = np.zeros(len(weights)), np.zeros(len(weights))
        for category in self.categories:
            relevant = weights @ category.relevant
            has = relevant > 0
            if has.any():
                ap = category.average_precision(weights[has], self.recalls)
                total[has] += ap
                count[has] += 1
        with np.errstate(invalid="ignore"):
            return total / count


class _Category:
    """One category's detections, best first.

    Args:
        relevant: Number of objects to find in each picture, ``(N,)``.
        records: (index of the picture, pycocotools' record of it).
        num_thresholds: Number of IoU thresholds.
    """

    def __init__(
        self, relevant: np.ndarray, records: list[tuple[int, dict]], num_thresholds: int
    ):
        self.relevant = relevant
        if not records:
            self.picture = np.zeros(0, dtype=int)
            self.hit = self.miss = np.zeros((num_thresholds, 0), dtype=bool)
            return
        scores = np.concatenate([e["dtScores"] for _, e in records])
        order = np.argsort(-scores, kind="mergesort")
        picture = [np.full(len(e["dtScores"]), index) for index, e in records]
        self.picture = np.concatenate(picture)[order]
        matched = np.concatenate([e["dtMatches"] for _, e in records], 1)[:, order] > 0
        ignored = np.concatenate([e["dtIgnore"] for _, e in records], 1)[:, order] > 0
        self.hit, self.miss = matched & ~ignored, ~matched & ~ignored

    def average_precision(self, weights: np.ndarray, recalls: np.ndarray) -> np.ndarray:
        """Computes AP under each weighting that has objects of the category, ``(R,)``.

        Precision rises at hits only, so it is computed at these positions.
        """
        relevant = (weights @ self.relevant)[:, None]
        out = np.zeros(len(weights))
        for hit, miss in zip(self.hit, self.miss, strict=True):
            (places,) = np.nonzero(hit)
            if not len(places):
                continue
            hits = np.cumsum(weights[:, self.picture[places]], 1)
            (counted,) = np.nonzero(hit | miss)
            until = np.searchsorted(places, counted)  # the next hit
            before = until < len(places)
            shape = weights.shape[1], len(places)
            each = np.ravel_multi_index(
                (self.picture[counted[before]], until[before]), shape
            )
            counts = np.bincount(each, minlength=shape[0] * shape[1]).reshape(shape)
            detected = weights @ np.cumsum(counts, 1, dtype=float)
            precision = hits / (detected + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            recall = hits / relevant
            for r in range(len(weights)):
                at = np.searchsorted(recall[r], recalls, side="left")
                at = at[at < len(places)]
                out[r] += precision[r, at].sum() / len(recalls)
        return out / len(self.hit)
