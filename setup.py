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

OPENMMLAB = [
    "onedl-mmengine>=0.10.12",
    "onedl-mmcv>=2.3.6",
    "onedl-mmdetection>=3.5.1",
    "matplotlib",
    "pycocotools",
]
EVALUATION = [
    "bjontegaard>=1.3",
    "distributed>=2024.9",
    "imageio-ffmpeg>=0.8.1",  # its wheel holds an ffmpeg with all encoders
    "matplotlib",
    "pycocotools",
]
EXPORT = ["onnx", "onnxruntime", "onnxscript", "openvino"]
DOCS = ["mkdocs-material", "mkdocstrings[python]>=1"]
# The tools, and beside them what they read, under a name of their own in a wheel.
FOLDERS = {
    "compressai_hm_tools": "tools",
    "compressai_hm_tools.mmdet_configs": "mmdet_configs",
}

setup(
    name="compressai-hm",
    version=version,
    description="Learned image compression for humans and machines, one bitstream",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Graphics :: Graphics Conversion",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=[
        *find_packages(include=["compressai_hm", "compressai_hm.*"]),
        *FOLDERS,
    ],
    package_dir=FOLDERS,
    package_data={
        "compressai_hm": ["py.typed", "zoo/weights/*"],
        "compressai_hm_tools": ["pictures/*", "page/*"],
        "compressai_hm_tools.mmdet_configs": ["**/*.py", "**/*.json"],
    },
    entry_points={
        "console_scripts": [
            f"hm-{name} = compressai_hm_tools:{name}"
            for name in ("app", "codec", "detect", "train", "test", "sweep", "demo")
        ]
    },
    python_requires=">=3.11,<3.13",  # compressai 1.2.8 has no wheel for 3.13
    install_requires=[
        "compressai==1.2.8",
        "numpy<2",  # compressai 1.2.8
        "pillow>=11.3",  # AVIF
        "torch>=2.5",
        "torchvision",
        "tqdm",
        "xxhash",  # a digest of the weights at every call: eight times crc32's speed
    ],
    extras_require={
        # One of these two lines; they have the same import names.
        "openmmlab": OPENMMLAB,
        "openmmlab-upstream": [
            "mmengine==0.10.7",
            "mmcv-lite==2.1.0",
            "mmdet==3.3.0",
            "matplotlib",
            "pycocotools",
            "setuptools<82",  # mmengine imports pkg_resources
        ],
        # Sweeps, their classical codecs and reports; beside one of the lines above.
        "evaluation": EVALUATION,
        "export": EXPORT,  # the transforms as ONNX, and in other runtimes
        "docs": DOCS,  # make docs
        "all": [*OPENMMLAB, *EVALUATION, *EXPORT, *DOCS],
        "dev": [
            *(*EVALUATION, *EXPORT, *DOCS, "pytest", "ruff", "setuptools>=70.1"),
            "playwright",  # drives a Chromium that is there; it brings none
        ],
    },
)
