-- fails: 3:29+9: INTERSECT compares whole inputs, for which it needs state the sql operator does not keep yet
--  hint: with a static table, write `WHERE id IN (SELECT id FROM codes)` or `NOT IN`
SELECT carrier FROM flights INTERSECT SELECT carrier FROM arrivals
