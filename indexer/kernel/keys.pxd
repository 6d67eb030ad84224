# Types for the compiled form of keys.py.
from indexer.kernel.segment cimport items_of
