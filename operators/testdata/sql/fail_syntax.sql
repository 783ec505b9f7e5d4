-- fails: 2:19+7: syntax error: expected: end of statement, found: flights
SELECT flight FRM flights
