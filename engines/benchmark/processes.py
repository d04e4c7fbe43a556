"""A process for each engine and model: one that dies or fills the memory takes no other along."""

from __future__ import annotations

from engines import isolation

get_engine = isolation.get
shut_down = isolation.close_all
