-- Takes no arguments. Returns the records and the reports of the workers at home here, the id of the
-- newest journal entry, the garbage, the stamp of every worker that was applied here, and (at shard 0)
-- the registry.
return {read_hash('workers', 262144), read_hash('reports', 262144), newest_entry(),
  read_hash('garbage', 1048576), read_hash('applied', 64), read_registry()}
