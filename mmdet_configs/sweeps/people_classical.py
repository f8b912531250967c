# hm-compact's weights for detectors of persons compared with HEVC and VVC, and with
# HEVC on the same regions of interest, on the first 200 pictures of people.py.
_base_ = ["people.py"]
quality = dict(qualities=[49, 44, 39])
anchor = "VVC"
codecs = [
    dict(name="VVC", type="vvc", **quality),
    dict(name="HEVC", type="hevc", **quality),
    dict(
        name="HEVC regions",
        type="hevc",
        detector_regions=_base_.detector_regions,
        **quality,
    ),
    *(_base_.codecs[i] for i in (1, 3)),
]
sets = [dict(count=200, **_base_.sets[0])]
