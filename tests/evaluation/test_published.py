import pytest

from compressai_hm.evaluation.published import paper_check


def test_the_papers_points_give_about_its_table():
    """HM has three published points only, so a gap of some points is expected."""
    found = {(kind, codec): (t, r.value) for kind, codec, t, r in paper_check()}
    detection = {k[1]: v for k, v in found.items() if k[0] == "detection"}
    independent = {
        "VTM": -17.6,
        "Ballé 2018": -14.6,
        "Minnen 2018": -25.0,
        "Cheng 2020": -27.8,
        "method": -37.5,
    }
    for codec, value in independent.items():
        assert detection[codec][1] == pytest.approx(value, abs=0.2)
        assert abs(detection[codec][1] - detection[codec][0]) < 7
