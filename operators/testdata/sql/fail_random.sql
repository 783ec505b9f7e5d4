-- fails: 5:8+6: `random` gives another value when rows are processed again after a restart
--  hint: derive the value from columns, such as `md5(_key)` or `_partition` and `_offset`
-- fails: 5:23+4: `uuid` gives another value when rows are processed again after a restart
--  hint: derive the value from columns, such as `md5(_key)` or `_partition` and `_offset`
SELECT random() AS r, uuid() AS id FROM flights
