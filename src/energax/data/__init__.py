"""Data sets: loading by name, checking one's own arrays, and preprocessing on the device."""

from energax.data.arrays import Dataset as Dataset
from energax.data.arrays import Split as Split
from energax.data.arrays import check_arrays as check_arrays
from energax.data.augment import Augmentation as Augmentation
from energax.data.augment import normalise as normalise
from energax.data.catalogue import DATASETS as DATASETS
from energax.data.catalogue import Source as Source
from energax.data.loading import available as available
from energax.data.loading import cache_folder as cache_folder
from energax.data.loading import describe as describe
from energax.data.loading import load_data as load_data
