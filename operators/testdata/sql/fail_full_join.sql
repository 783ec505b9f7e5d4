-- fails: 3:32+4: FULL JOIN must remember which rows found a match, which is state the sql operator does not keep yet
--  hint: write LEFT JOIN with the stream on the left
SELECT f.flight FROM flights f FULL JOIN airlines a ON a.carrier = f.carrier
