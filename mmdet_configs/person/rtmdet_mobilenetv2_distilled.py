# The detector of rtmdet_mobilenetv2.py, taught by RTMDet-nano. RTMDET_NANO names the
# teacher's weights, in MMDetection's key names and with persons as the only class.
# MMPose publishes them (rtmdet_nano_8xb32-100e_coco-obj365-person).
_base_ = "rtmdet_mobilenetv2.py"
work_dir = "work_dirs/person_distilled"
model = dict(
    type="DistilledRTMDet",
    teacher="{{fileDirname}}/rtmdet_nano.py",
    teacher_checkpoint="{{$RTMDET_NANO:weights/rtmdet_nano_person_mmdet.pth}}",
)
