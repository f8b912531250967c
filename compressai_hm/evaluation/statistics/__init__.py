"""From finished points to curves, BD values and intervals.

Every value of a set is the mean over its pictures; mAP is COCO's of the whole set.
Intervals come from resampling the pictures: one resampling serves all codecs, so that
they are compared on the same pictures.
"""
