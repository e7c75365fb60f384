<?php
define('DATA_DIR', dirname(__FILE__) . '/data');
