# hm-compact and classical codecs on COCO, on people in COCO, and on Kodak.
# MMDET_DATASETS names the folder of COCO, COCO_PERSON the folder that holds
# annotations/person_val.json, KODAK the folder of the Kodak pictures, and DETECTORS the
# folder of the detectors' weights.
_base_ = [
    "../_base_/datasets/coco_detection.py",
]
detectors = "{{$DETECTORS:checkpoints}}"
person = "{{$COCO_PERSON:data/coco_small/person}}"

anchor = "HEVC"
codecs = [
    dict(name="JPEG", type="jpeg", qualities=[2, 5, 10, 20, 30, 50]),
    dict(name="WebP", type="webp", qualities=[1, 10, 30, 55, 75]),
    dict(name="AVIF", type="avif", qualities=[1, 6, 15, 28, 40]),
    dict(name="HEVC", type="hevc", qualities=[51, 47, 43, 39, 35, 31]),
    dict(name="HEVC 4:2:0", type="hevc-420", qualities=[51, 47, 43, 39, 35, 31]),
    dict(name="VVC", type="vvc", qualities=[51, 47, 43, 39, 35, 31]),
    dict(name="JPEG XL", type="jpegxl", qualities=[11, 20, 35, 55, 75]),
    dict(name="hm-compact", type="hm-compact", qualities=[1, 2, 3, 4, 5, 6, 7, 8]),
]
sets = [
    dict(
        name="coco",
        dataset=_base_.val_dataloader.dataset,
        detectors=[
            dict(
                name="YOLOX-Nano",
                config="mmdet::yolox/yolox_nano_8xb8-300e_coco.py",
                checkpoint=detectors + "/yolox_nano_mmdet.pth",
            )
        ],
    ),
    dict(
        name="person",
        dataset=dict(
            type="CheckedCocoDataset",
            metainfo=dict(classes=("person",)),
            ann_file=person + "/annotations/person_val.json",
            data_prefix=dict(img=_base_.data_root + "/val2017/"),
        ),
        detectors=[
            dict(
                name="RTMDet-nano",
                config="{{fileDirname}}/../person/rtmdet_nano.py",
                checkpoint=detectors + "/rtmdet_nano_person_mmdet.pth",
            )
        ],
    ),
    dict(name="kodak", pictures="{{$KODAK:data/kodak}}"),
]
