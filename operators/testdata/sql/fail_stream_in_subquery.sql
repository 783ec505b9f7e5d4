-- fails: 3:64+8: joining two streams needs state, which the sql operator does not keep yet
--  hint: join the stream with a static table, or put the streams one after the other with UNION ALL
SELECT flight FROM flights WHERE flight IN (SELECT flight FROM arrivals)
