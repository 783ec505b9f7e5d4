-- fails: 3:46+3: `now` gives another time when rows are processed again after a restart
--  hint: use a time of the row: an event-time column, or `_timestamp`, when its record was written
SELECT flight FROM flights WHERE scheduled > now() - INTERVAL '1 hour'
