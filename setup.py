"""Packaging of libra_d2. Every dependency has its reason; ranges are what the tests ran with."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "libra_d2/version.py").read_text()).group(1)

# torch, torchvision and detectron2 are deliberately not here: pip would replace the build that
# fits the machine's CUDA. `import libra_d2` says how to get them; `make setup` installs them.
INSTALL_REQUIRES = [
    "fvcore>=0.1.5.post20221221,<0.2",  # Detectron2's base: smooth L1, weight init, registries
    "pycocotools>=2.0.6,<3",  # COCO annotation format and the reference evaluation
    "opencv-python>=4.6",  # drawing; Detectron2's own visualizer imports it too
    "matplotlib>=3.6",  # loss curves and picture grids
    "numpy>=1.23",  # arrays at the border to images and COCO files
    "Pillow>=9.4",  # decoding as Detectron2 does it, and encoding of the built-in data
    "tqdm>=4.62",  # progress of generation and inference
    "tabulate>=0.9",  # tables on the terminal
    "PyYAML>=5.1",  # data.yaml of YOLO data sets
]

TIMM = "timm>=1.0.3,<2"  # backbones named build_*timm_fpn_backbone, timm:// weights
MLFLOW = [
    "mlflow-skinny>=3.17,<4",  # tracking of runs: the client, without MLflow's server
    "sqlalchemy>=2,<3",  # its local store, a SQLite file: it refuses plain files
    "alembic>=1.10,<2",  # its local store: creates the tables
]
FAST_EVAL = "faster-coco-eval>=1.6,<2"  # COCO metrics of large sets: --backend faster-coco-eval
REPORT = [
    "plotly>=6,<8",  # the charts of the HTML report, whose JavaScript goes into the file
    "jinja2>=3,<4",  # its page: templates that escape every name and value
]
ONNX = "onnxruntime>=1.17,<2"  # runs ONNX files: in infer and evaluate, and for export's check
EXPORT = [
    "onnx>=1.16,<2",  # libra-d2 export --format onnx: the file and its checks
    "onnxscript>=0.5,<1",  # torch's exporter needs it
    ONNX,
]
SERVE = [
    "fastapi>=0.110,<1",  # libra-d2 serve: a web service around a detector
    "python-multipart>=0.0.13,<1",  # its uploads
    "uvicorn>=0.27,<1",  # its server
    "prometheus-client>=0.20,<1",  # its metrics
    "jinja2>=3,<4",  # its page
    ONNX,
]
VIDEO = "av>=12,<19"  # libra-d2 infer --draw of videos: H.264 with the times of the frames
HEIF = "pillow-heif>=1,<2"  # HEIC images, as phones take them; read wherever it is installed
LMDB = "lmdb>=1.4,<4"  # data sets packed into one file: libra-d2 pack, DATASETS.TRAIN packed:FILE
SPLIT = "imagehash>=4.3.1,<5"  # libra-d2 split: images that look alike stay in one part
SUPERVISION = "supervision>=0.26.1,<0.32"  # detections for its annotators, trackers and zones
SAHI = "sahi>=0.12,<0.13"  # our detectors as its models, for its slicing and its tools
SCIPY = "scipy>=1.11,<2"  # libra-d2 experiment: Student's t distribution, for the intervals

EXTRAS_REQUIRE = {
    # What `make setup` adds: the tested torch pair, and what Detectron2 imports. The Detectron2
    # wheel, and the weights of the demo, are fetched by tools/setup_env.py (see there for why).
    "runtime": [
        "torch>=2.14,<2.15",  # tested release
        "torchvision>=0.29,<0.30",  # its pair: NMS, ROIAlign and the MobileNetV2 backbone
        "iopath>=0.1.9,<0.2",  # Detectron2: files and URLs
        "omegaconf>=2.1,<2.5",  # Detectron2: LazyConfig
        "hydra-core>=1.1,<1.4",  # Detectron2: LazyConfig
        "yacs>=0.1.8,<0.2",  # Detectron2: CfgNode
        "termcolor>=1.1,<4",  # Detectron2: logger
        "cloudpickle>=2,<4",  # Detectron2: LazyConfig and data workers
        "tensorboard>=2.10,<3",  # Detectron2: event writer
        FAST_EVAL,
        "setuptools<81",  # Detectron2's model zoo imports pkg_resources
    ],
    "mlflow": MLFLOW,  # for MLFLOW.ENABLED
    "timm": [TIMM],  # not for everyone: it brings the client of the Hugging Face hub
    "heif": [HEIF],  # not for everyone: other formats do without
    "lmdb": [LMDB],  # not for everyone: image folders do without
    "split": [SPLIT],  # not for everyone: it brings SciPy, and --no-near-duplicates does without
    "experiment": [SCIPY],  # not for everyone: 100 MB that only intervals need
    "supervision": [SUPERVISION],  # not for everyone: results need no other tool
    "sahi": [SAHI],  # not for everyone: --slice does without
    "fast-eval": [FAST_EVAL],  # the same numbers in a fifth of the time; pycocotools does without
    "report": REPORT,  # not for everyone: JSON and CSV do without
    "onnx": [ONNX],  # not for everyone: models in torch do without
    "export": EXPORT,
    "app": SERVE,  # its former name
    "serve": SERVE,  # not for everyone: a server; enough for ONNX files. See requirements-serve.txt
    "video": [VIDEO],  # not for everyone: its wheels bring FFmpeg with x264, under the GPL
    "test": [
        *MLFLOW,
        TIMM,
        LMDB,
        SPLIT,
        SCIPY,
        SUPERVISION,
        SAHI,
        FAST_EVAL,
        *REPORT,
        *EXPORT,
        *SERVE,
        VIDEO,
        "httpx>=0.27,<1",  # client of the tests of the web service
        "jsonschema>=4.20,<5",  # checks results against the schema in the docs
        "playwright>=1.45,<2",  # drives the browser that opens the report
        "tidecv>=1.0.1,<2",  # the published error analysis, which ours is compared with
        "pytest>=8,<10",  # runner
        "pytest-xdist>=3.6,<4",  # tests on several cores
        "hypothesis>=6.100,<7",  # property tests of the sampler
        "ruff>=0.17,<0.18",  # formatter and linter
        "codespell>=2.4,<3",  # spelling
        "import-linter>=2.5,<3",  # the layers of the package, as pyproject.toml has them
        "mypy>=1.18,<3",  # type checker
        "pytest-cov>=6,<8",  # which lines the tests run: `make coverage`
    ],
    "docs": [
        "mkdocs-material>=9.6,<10",  # the site: `make docs`
        "mkdocstrings[python]>=1,<2",  # its API pages, from the docstrings
    ],
}

setup(
    name="libra_d2",
    version=VERSION,
    description="Libra R-CNN (balanced learning for object detection) for Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The libra_d2 maintainers",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    project_urls={"Paper": "https://arxiv.org/abs/1904.02701"},
    keywords=["object detection", "Libra R-CNN", "Detectron2"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    py_modules=["libra_d2_launcher"],
    packages=find_packages(include=["libra_d2", "libra_d2.*"]),
    package_data={
        "libra_d2": ["py.typed"],
        "libra_d2.experiments.page": ["experiment.css", "experiment.js", "templates/*.html"],
        "libra_d2.serving.page": ["serve.css", "serve.js", "templates/*.html"],
        "libra_d2.visualization": ["pages.js", "templates/*.html"],
        "libra_d2.visualization.batches": ["batches.css", "templates/*.html"],
        "libra_d2.visualization.report": ["report.css", "report.js", "templates/*.html"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["libra-d2 = libra_d2_launcher:main"]},
)
