# What people pay for training without attention: Kodak, as KODAK names it.
_base_ = ["trainings.py"]
codecs = [*_base_.control, *_base_.adapted]
seeds = _base_.seeds[:1]
sets = [dict(name="kodak", pictures="{{$KODAK:data/kodak}}")]
