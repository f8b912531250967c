from compressai_hm.evaluation.text_tables import table1

from .conftest import finish


def test_table_1_has_the_papers_layout(cfg, tmp_path):
    cfg.table1 = dict(
        anchor="JPEG",
        columns=[("people", "psnr"), ("drawn", "mAP Faster R-CNN R18")],
    )
    _, curves, comparisons, _ = finish(cfg, tmp_path / "w")
    text = (tmp_path / "w/results/table1.md").read_text()
    assert text == table1(curves, **cfg.table1)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert lines[0][1:] == ["people: psnr", "drawn: mAP Faster R-CNN R18"]
    bd_rates = {
        (c.set, c.codec): c.bd_rate.value
        for c in comparisons
        if (c.view, c.metric) == ("x_hat", "psnr")
    }
    (webp,) = (line for line in lines if line[0] == "WebP")
    assert webp[1].startswith(f"{bd_rates['people', 'WebP']:+.1f} %")
    (learned,) = (line for line in lines if line[0] == "demo codec")
    assert learned[1:] == ["–", "–"]  # one point makes no curve
