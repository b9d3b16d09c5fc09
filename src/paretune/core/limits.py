"""How much is read from people, and how large a study may be; each limit with its reason.

A file or a number beyond them is a slip far more often than a wish: it is refused in a moment, with the limit in the
message, where without one it would fill the memory or keep a machine busy for hours first.
"""

from __future__ import annotations

from typing import Final

MAX_YAML_BYTES: Final = 262_144  # a study of 200 methods has 6,000; 1.5 s of a parser in pure Python
MAX_YAML_CHARACTERS: Final = 1_000_000  # with every alias written out: an alias costs three bytes, whatever it names
MAX_NESTING: Final = 32  # of YAML, JSON and --set; a study needs 6, and Python's own stack ends near 1,000
MAX_WHOLE: Final = 2**63 - 1  # what records and Parquet hold in a column of whole numbers

MAX_BETA: Final = 1_000_000  # at a thousand no reward moves a policy any more; far beyond, numbers overflow
MAX_REWARD: Final = 1_000_000_000  # either sign: products of a few such ranges and squares of rewards stay finite
LEAST_RANGE: Final = 1e-9  # between the lowest and the highest reward: rewards are divided by it

MAX_TABLE_BYTES: Final = 268_435_456  # of prompts: 256 MiB are half a million of 500 characters, all kept in memory
MAX_ROW_BYTES: Final = 4_194_304  # of a row: longer than the context of any model
MAX_ROWS: Final = 1_000_000  # of a file of prompts; a row takes 1 kB of memory at least

MAX_METHODS: Final = 200  # of a study: no reader compares more, and each takes 10 ms of planning a seed
MAX_NAME: Final = 100  # characters of a study's or a method's name, which names folders of at most 255 bytes
MAX_SEEDS: Final = 200  # intervals need a few dozen
MAX_SEED: Final = MAX_WHOLE  # seeds are a column of the records
MAX_COMPLETIONS: Final = 1_000_000_000  # of a budget: four months at 100 a second
MAX_PREFERENCES: Final = 2_000  # evaluated each, for every cell; planning takes a second a thousand
MAX_GRID: Final = 100_000  # points of a lattice of the simplex: half a second to list; nobody trains so many experts
MAX_BUDGETS: Final = 50  # a curve needs ten points
MAX_CELLS: Final = 5_000  # tasks x methods x budgets x seeds, and trials of a sweep: planning takes 10 ms each
MAX_SAMPLES: Final = 100_000  # completions of one prompt
MAX_QUESTIONS: Final = 200  # of a comparison of policies; ten tell what somebody wants, and nobody replies to more
MAX_WORKERS: Final = 1_024  # processes; each takes 200 MB at least

MAX_READ_FILES: Final = 10_000  # that a task's rewards, or a module, depend on: each load of the task digests them all
MAX_READ_BYTES: Final = 4_294_967_296  # of these files: 4 GiB hold a judge of two billion parameters; 3 s of digesting
MAX_LOOKED_AT: Final = 200_000  # files and folders on the way to these: half a second

MAX_PATTERN: Final = 5_000  # characters of a pattern that says which layers an adapter adapts; long ones have 1,000
MAX_PATTERN_STEPS: Final = 5_000_000  # to match it with all layers: a few seconds, ten times what long ones take
