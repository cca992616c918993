"""Updates of a PV into a Parquet file: `python examples/columns_parquet.py PV FILE.parquet COUNT`."""

import sys

import pyarrow
from pyarrow.parquet import ParquetWriter

import pvafast.sync


def main(name: str, path: str, count: int) -> None:
    with pvafast.sync.Client() as client:
        fd = client.info(name)
        wanted = [field for field in ("value", "alarm.severity", "alarm.message") if field in fd]
        with client.monitor(name, columns=wanted) as batches:
            writer, rows, overruns = None, 0, 0
            for batch in batches:  # what has come since the last one, a row an update
                table = pyarrow.record_batch(batch.to_arrow())
                if writer is None:
                    writer = ParquetWriter(path, table.schema)
                writer.write_batch(table)
                rows += len(batch)
                overruns += int(batch.overrun("value").sum())
                if rows >= count:
                    break
            if writer is not None:
                writer.close()
        print(f"{rows} rows in {path}; {overruns} overruns at the server, {batches.dropped} dropped here")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
