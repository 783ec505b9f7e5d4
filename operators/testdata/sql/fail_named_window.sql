-- fails: 5:16+3: the window function `sum` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
-- fails: 5:56+6: WINDOW is not supported
--  hint: an operator is a SELECT with FROM, JOIN and WHERE
SELECT flight, sum(delay) OVER w AS total FROM flights WINDOW w AS (PARTITION BY carrier)
