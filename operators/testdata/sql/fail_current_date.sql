-- fails: 3:8+12: `current_date` gives another time when rows are processed again after a restart
--  hint: use a time of the row: an event-time column, or `_timestamp`, when its record was written
SELECT current_date AS today FROM flights
