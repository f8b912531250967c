from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "compressai_hm/__init__.py")
    .read_text(encoding="utf-8")
    .splitlines()
    if line.startswith("__version__")
)

setup(
    name="compressai-hm",
    version=version,
    description="Learned image compression for humans and machines, one bitstream",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["compressai_hm", "compressai_hm.*"]),
    package_data={
        "compressai_hm": ["py.typed", "zoo/weights/*", "evaluation/published.json"]
    },
    python_requires=">=3.11,<3.13",  # compressai 1.2.8 has no wheel for 3.13
    install_requires=[
        "bjontegaard>=1.3",
        "compressai==1.2.8",
        "imageio-ffmpeg>=0.8.1",  # its wheel holds an ffmpeg with all encoders
        "matplotlib",
        "numpy<2",  # compressai 1.2.8
        "pillow>=11.3",  # AVIF
        "torch>=2.5",
        "torchvision",
        "tqdm",
        "xxhash",  # a digest of the weights at every call: eight times crc32's speed
    ],
    extras_require={
        # One of these two lines; they have the same import names.
        "openmmlab": [
            "onedl-mmengine>=0.10.12",
            "onedl-mmcv>=2.3.6",
            "onedl-mmdetection>=3.5.1",
            "pytorch-optimizer>=4.1",  # SOAP
        ],
        "openmmlab-upstream": [
            "mmengine==0.10.7",
            "mmcv-lite==2.1.0",
            "mmdet==3.3.0",
            "pytorch-optimizer>=4.1",
            "setuptools<82",  # mmengine imports pkg_resources
        ],
        "dev": ["pytest", "ruff"],
    },
)
