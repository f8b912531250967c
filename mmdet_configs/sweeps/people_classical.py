# hm-compact's weights for detectors of persons compared with HEVC and VVC, and with
# HEVC on the same regions of interest, on the first 200 pictures of people.py.
_base_ = ["people.py"]
hevc = dict(type="hevc", qualities=[51, 49, 44, 41])
anchor = "VVC"
codecs = [
    dict(name="VVC", type="vvc", qualities=[55, 52, 49, 44]),
    dict(name="HEVC", **hevc),
    dict(name="HEVC regions", detector_regions=_base_.detector_regions, **hevc),
    *(_base_.codecs[i] for i in (1, 3)),
]
sets = [dict(count=200, **_base_.sets[0])]
