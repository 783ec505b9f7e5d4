SELECT n FROM (SELECT flight * 10 AS n FROM (SELECT flight FROM flights WHERE flight > 2) a WHERE flight < 7) b WHERE n <> 40
