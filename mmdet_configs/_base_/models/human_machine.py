# A codec in front of a detector. backbone must exist for mmdet.apis.init_detector, and
# must be empty, because the detector's backbone is in the detector's config.
model = dict(type="HumanMachineDetector", backbone=dict())
