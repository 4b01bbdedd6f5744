"""The account that the libraries read: the same few files for each."""

from __future__ import annotations

import io

import pandas as pd

from failover.standin import StandIn
from tests.storage.account import store

GREETING = "Hello, World!"
SALES = "shop,sum\nnorth,1\nsouth,2\n"


def fill(account: StandIn) -> None:
    """Put the files of docs/in-your-stack.md into the container `demo`."""
    parquet = io.BytesIO()
    pd.read_csv(io.StringIO(SALES)).to_parquet(parquet)
    store(account, GREETING.encode(), "greeting.txt")
    store(account, SALES.encode(), "sales.csv")
    store(account, parquet.getvalue(), "sales.parquet")
    for number in range(2):
        store(account, SALES.encode(), f"parts/{number}.csv")
