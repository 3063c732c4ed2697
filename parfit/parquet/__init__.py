"""Data in Parquet files: which files they are, how many rows are in memory at a time, and the rows as datasets."""

from parfit.parquet.rows import ParquetRows
from parfit.parquet.source import is_parquet

__all__ = ["ParquetRows", "is_parquet"]
