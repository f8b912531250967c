"""From finished points to curves, BD values and intervals.

Every value of a set is the mean over its pictures, except mAP, which is COCO's of the
whole set. Intervals come from resampling the pictures. All codecs share the
resamplings, so that they are compared on the same pictures.
"""
