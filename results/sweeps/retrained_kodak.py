# What people pay for it without attention: Kodak, as KODAK names it.
_base_ = ["retrained.py"]
codecs = _base_.codecs[:2]
sets = [dict(name="kodak", pictures="{{$KODAK:data/kodak}}")]
