"""Readers of data formats. A reader is one class, a subclass of `RecordDataset`, and one card."""

from mmrnn.data.readers.captions import Captions
from mmrnn.data.readers.interleaved import InterleavedDocuments
from mmrnn.data.readers.llava import LLaVAJson
from mmrnn.data.readers.parquet import Parquet
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.readers.text import PlainText
from mmrnn.data.readers.webdataset import WebDataset

__all__ = [
    "Captions",
    "InterleavedDocuments",
    "LLaVAJson",
    "Parquet",
    "Parsed",
    "PlainText",
    "RecordDataset",
    "WebDataset",
]
