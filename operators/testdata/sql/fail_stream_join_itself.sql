-- fails: 3:37+9: joining two streams needs state, which the sql operator does not keep yet
--  hint: join the stream with a static table, or put the streams one after the other with UNION ALL
SELECT a.flight FROM flights a JOIN flights b ON a.flight = b.flight
