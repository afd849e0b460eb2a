"""The data sets that the library knows by name: facts only, read by one generic loader.

MD5s of MNIST's and Fashion-MNIST's uncompressed files were computed from the official compressed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from energax.data.augment import Augmentation
from energax.data.cifar import CifarReader
from energax.data.digits import SIZES, DigitsReader
from energax.data.fetch import Remote
from energax.data.idx import IdxReader
from energax.data.reader import AbstractReader, Sizes
from energax.data.tiny import TinyReader


@dataclass(frozen=True, kw_only=True)
class Source:
    """What there is to know about a data set before reading it.

    To load a data set of one's own by files, build one of these and pass it to `load_data` in the place of a name.

    Attributes:
        name: What `load_data` calls it.
        title: What people call it.
        reader: The reader of its layout.
        folders: Folders below the data folder that may hold it; the first is also its name in the cache.
        files: What to download, empty if the data set is embedded in the package. One file if `archive`.
        archive: Whether `files` is one archive that unpacks to `folders[0]`, instead of the very files to
            read.
        megabytes: About how much is downloaded, in 10^6 bytes.
        plain: MD5s of official files that may lie beside or instead of `files`.
        sizes: Rows of the splits of the official data set.
        classes: Number of classes.
        image_shape: Height, width and channels.
        scale: The pixel value that stands for 1.
        augmentation: The customary transformation of training images.
        terms: Licence or terms of use.
        citation: What to cite.
        homepage: The data set's own page.

    """

    name: str
    title: str
    reader: AbstractReader
    folders: tuple[str, ...] = ()
    files: tuple[Remote, ...] = ()
    archive: bool = False
    megabytes: float = 0.0
    plain: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sizes: Sizes
    classes: int
    image_shape: tuple[int, int, int]
    scale: float = 255.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    terms: str
    citation: str
    homepage: str


def _idx_files(facts: Mapping[str, tuple[str, int]], mirrors: tuple[str, ...]) -> tuple[Remote, ...]:
    """The compressed files of MNIST's layout from their MD5s and sizes in bytes."""
    return tuple(
        Remote(f"{name}.gz", md5, tuple(f"{mirror}{name}.gz" for mirror in mirrors), size)
        for name, (md5, size) in facts.items()
    )


_DIGITS = Source(
    name="digits",
    title="Optical recognition of handwritten digits, 8x8",
    reader=DigitsReader(),
    sizes=SIZES,
    classes=10,
    image_shape=(8, 8, 1),
    scale=16.0,
    terms="CC BY 4.0",
    citation="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
    "Repository, 1998, doi:10.24432/C50P49",
    homepage="https://archive.ics.uci.edu/dataset/80",
)

_MNIST = Source(
    name="mnist",
    title="MNIST handwritten digits",
    reader=IdxReader(),
    folders=("mnist", "MNIST/raw"),
    files=_idx_files(
        {
            "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
            "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", 28_881),
            "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", 1_648_877),
            "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", 4_542),
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    megabytes=11.6,
    plain=MappingProxyType(
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        }
    ),
    sizes=Sizes(50_000, 10_000, 10_000),
    classes=10,
    image_shape=(28, 28, 1),
    terms="Made from NIST's Special Databases 1 and 3; the authors state no licence",
    citation="Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document "
    "Recognition, Proceedings of the IEEE 86, 1998",
    homepage="http://yann.lecun.com/exdb/mnist/",
)

_FASHION = Source(
    name="fashion-mnist",
    title="Fashion-MNIST articles of clothing",
    reader=IdxReader(),
    folders=("fashion-mnist", "FashionMNIST/raw"),
    files=_idx_files(
        {
            "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
            "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", 29_515),
            "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", 4_422_102),
            "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", 5_148),
        },
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
    megabytes=30.9,
    plain=MappingProxyType(
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        }
    ),
    sizes=Sizes(50_000, 10_000, 10_000),
    classes=10,
    image_shape=(28, 28, 1),
    terms="MIT (Zalando SE)",
    citation="H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
    "Machine Learning Algorithms, 2017, arXiv:1708.07747",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
)

_CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10",
    reader=CifarReader(tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", (10,)),
    folders=("cifar-10-batches-bin",),
    files=(
        Remote(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            171_000_000,
        ),
    ),
    archive=True,
    megabytes=170,
    sizes=Sizes(45_000, 5_000, 10_000),
    classes=10,
    image_shape=(32, 32, 3),
    augmentation=Augmentation(flip=True, pad=4),
    terms="The author states no licence and asks to be cited",
    citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)

_CIFAR100 = Source(
    name="cifar100",
    title="CIFAR-100, fine labels",
    reader=CifarReader(("train.bin",), "test.bin", (20, 100)),
    folders=("cifar-100-binary",),
    files=(
        Remote(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            170_000_000,
        ),
    ),
    archive=True,
    megabytes=169,
    sizes=Sizes(45_000, 5_000, 10_000),
    classes=100,
    image_shape=(32, 32, 3),
    augmentation=Augmentation(flip=True, pad=4),
    terms=_CIFAR10.terms,
    citation=_CIFAR10.citation,
    homepage=_CIFAR10.homepage,
)

_TINY = Source(
    name="tiny-imagenet",
    title="Tiny-ImageNet-200",
    reader=TinyReader(),
    folders=("tiny-imagenet-200",),
    files=(
        Remote(
            "tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            249_000_000,
        ),
    ),
    archive=True,
    megabytes=248,
    sizes=Sizes(90_000, 10_000, 10_000),
    classes=200,
    image_shape=(64, 64, 3),
    augmentation=Augmentation(flip=True, pad=8),
    terms="From ImageNet: non-commercial research and education only",
    citation="Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS231n, 2015",
    homepage="http://cs231n.stanford.edu/",
)

DATASETS: Mapping[str, Source] = MappingProxyType(
    {source.name: source for source in (_DIGITS, _MNIST, _FASHION, _CIFAR10, _CIFAR100, _TINY)}
)
"""Every data set that the library can load, by name."""
