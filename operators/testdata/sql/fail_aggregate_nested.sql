-- fails: 3:46+3: the aggregate `avg` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT flight FROM flights WHERE delay > 2 * avg(delay)
